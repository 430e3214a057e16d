output "buckets" {
  description = "Bucket names by use: data, models, pipelines, records."
  value       = { for use, bucket in google_storage_bucket.this : use => bucket.name }
}
