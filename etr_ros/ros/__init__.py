"""The ROS 2 node around the core: convert, one core call, publish."""
