"""The lab as a whole: its processes, its command line, and a way in for tests (`Lab`)."""
