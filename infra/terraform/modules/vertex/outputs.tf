output "endpoints" {
  description = "Full resource names of the endpoints by use (deploy.endpoint, deploy.smoke_endpoint)."
  value       = { for use, endpoint in google_vertex_ai_endpoint.this : use => endpoint.id }
}
