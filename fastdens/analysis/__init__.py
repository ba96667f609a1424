"""Analysis of fitted densities: functions of plain arrays, on top of the core."""
