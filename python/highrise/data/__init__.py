"""Floor 2, data. In: repositories and folders. Out: cleaned, de-duplicated, screened Parquet, manifest, data card."""
