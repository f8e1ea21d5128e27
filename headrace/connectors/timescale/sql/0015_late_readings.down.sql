DROP TABLE rollups_unmarked;
DROP TABLE late_readings;
