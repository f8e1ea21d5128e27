DROP TABLE repeats;
