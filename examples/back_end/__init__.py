"""A SLAM back end in the loop: odometry and our loop closures in, the corrected path out."""
