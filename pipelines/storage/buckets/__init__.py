"""Objects in buckets that speak S3: requests, listings, and what the errors mean to the user."""
