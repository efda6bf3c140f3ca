"""Every frame of a recording through the predictor: bag in, bag out, the same answer every time.

replay("drive.mcap", runtime, Path("out"), ReplaySettings(topics=("/front/image_raw",)))
"""
