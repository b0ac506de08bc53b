"""A server that streams on a known timetable and logs what it really did."""
