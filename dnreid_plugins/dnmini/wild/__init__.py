"""The second rendered world: solid vehicles, the rays of roadside cameras, daylight, night and weather."""
