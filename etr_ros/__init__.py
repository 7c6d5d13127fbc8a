"""Visual place recognition for robots: retrieve with FAISS, re-rank with ETR, publish over ROS 2."""

__version__ = "0.1.0"
