"""Visual place recognition for robots: retrieve with FAISS, re-rank with ETR, publish over ROS 2."""

import os

__version__ = "0.1.0"

# Threads of the networks that wait must not keep a core busy that the rest of the robot needs: on a busy machine
# re-ranking takes ten times as long otherwise. Read when torch is loaded, so set before.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# NumPy's products here are small; its threads would wait for the next one at full load, on all cores. Read when NumPy
# is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
