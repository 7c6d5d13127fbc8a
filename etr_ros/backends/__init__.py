"""What each SLAM back end is told, as plain values: direction, units, information or covariance, ids or stamps.

Nothing here knows ROS; `etr_ros.ros.backends` puts these values into messages. `docs/back_ends.md` lists them all.
"""
