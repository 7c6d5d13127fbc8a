"""A simulated robot in a 3-D world with true poses: for the demo, for training pictures, and for tests.

world -> plan_rounds -> drive -> write_bag
world -> plan_laps -> drive_with_sensors -> write_bag or write_recording
"""
