"""Old rows as Parquet files in an object store: written, read back and compared before the database forgets them."""
