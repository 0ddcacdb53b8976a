"""`keras-prelu batch`: the images of folders and tables -> Parquet files with labels, scores and outputs."""
