variable "project" {
  description = "Project id."
  type        = string
}

variable "name" {
  description = "Short name of the deployment."
  type        = string
}

variable "region" {
  description = "Region in which pipelines run; vertex.region in pipeline_config.yaml says the same."
  type        = string
}

variable "endpoints" {
  description = "Vertex endpoints to make: {users, smoke} -> numeric id of at most 10 digits. Empty: the service is Cloud Run's alone."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(var.endpoints) == 0 || join(",", sort(keys(var.endpoints))) == "smoke,users"
    error_message = "endpoints are either none or both of `users` and `smoke`."
  }

  validation {
    condition     = alltrue([for id in values(var.endpoints) : can(regex("^[1-9][0-9]{0,9}$", id))])
    error_message = "An endpoint's id has 1 to 10 digits and no leading zero."
  }
}

variable "labels" {
  description = "Labels of every endpoint."
  type        = map(string)
  default     = {}
}
