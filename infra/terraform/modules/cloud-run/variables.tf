variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of the service."
  type        = string
}

variable "service" {
  description = "Name of the service; deploy.service in pipeline_config.yaml says the same."
  type        = string
}

variable "description" {
  description = "What the service is for."
  type        = string
  default     = "Tells real product photos from AI-generated ones"
}

variable "image" {
  description = "Serving image of the first revision, by digest; empty: Google's sample, which answers every probe until the first `aidetect deploy`."
  type        = string
  default     = ""

  validation {
    condition     = var.image == "" || can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must end in @sha256: and 64 hexadecimal digits: a tag may move under a running revision."
  }
}

variable "model_uri" {
  description = "Model of the first revision: gs://bucket/folder or models:/name@alias; empty with the sample."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(|gs://.+|models:/.+)$", var.model_uri))
    error_message = "model_uri must be a gs:// folder or a models:/ URI."
  }

  validation {
    condition     = (var.image == "") == (var.model_uri == "")
    error_message = "image and model_uri go together: both for a first revision of one's own, neither for the sample."
  }
}

variable "environment" {
  description = "Further settings of the service, e.g. RATE_LIMIT_STORAGE_URI. A change makes a new revision of the image and model that serve."
  type        = map(string)
  default     = {}

  validation {
    condition     = !anytrue([for name in keys(var.environment) : contains(["API_KEYS", "PORT", "HOST", "MODEL_URI", "MODEL_VERSION", "MODEL_DIGEST"], name)])
    error_message = "API_KEYS comes from Secret Manager, PORT and HOST belong to the platform and the image, MODEL_* to deployments."
  }

  validation {
    condition     = alltrue([for name, value in var.environment : can(regex("^[A-Z][A-Z0-9_]*$", name)) && !strcontains(value, "\n")])
    error_message = "A setting is named in capitals and its value is one line."
  }
}

variable "api_keys_secret" {
  description = "Id of the secret that holds the comma list of API keys."
  type        = string
}

variable "service_account" {
  description = "Identity of the service."
  type        = string
}

variable "cpu" {
  description = "CPUs of an instance; one engine slot each."
  type        = number
  default     = 2

  validation {
    condition     = contains([1, 2, 4, 8], var.cpu)
    error_message = "cpu must be 1, 2, 4 or 8."
  }
}

variable "memory_mb" {
  description = "Memory of an instance in MiB: 760 for the service with torch and the bodies it receives, 200 for each CPU."
  type        = number
  default     = 2048

  validation {
    condition     = var.memory_mb >= 1024
    error_message = "memory_mb must be at least 1024: the service with torch loaded needs it."
  }
}

variable "concurrency" {
  description = "Requests an instance takes at once; beyond its slots they wait in the service's bounded queue."
  type        = number
  default     = 16

  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 1000
    error_message = "concurrency must be 1 to 1000."
  }
}

variable "min_instances" {
  description = "Instances kept warm; 0 lets the service sleep."
  type        = number
  default     = 0
}

variable "max_instances" {
  description = "Most instances: the bound on what a flood can cost."
  type        = number
  default     = 5

  validation {
    condition     = var.max_instances >= 1 && var.max_instances <= 100
    error_message = "max_instances must be 1 to 100."
  }
}

variable "request_timeout_s" {
  description = "Seconds after which a request is cut off."
  type        = number
  default     = 60
}

variable "ingress" {
  description = "Who reaches the service at all."
  type        = string
  default     = "INGRESS_TRAFFIC_ALL"

  validation {
    condition     = contains(["INGRESS_TRAFFIC_ALL", "INGRESS_TRAFFIC_INTERNAL_ONLY", "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"], var.ingress)
    error_message = "ingress must be INGRESS_TRAFFIC_ALL, INGRESS_TRAFFIC_INTERNAL_ONLY or INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER."
  }
}

variable "metrics_sidecar_image" {
  description = "Google's Managed Prometheus sidecar for Cloud Run, by digest; empty for none, and then nothing reads /metrics."
  type        = string
  default     = ""

  validation {
    # Google's own repository: a release of it is not written over by anybody else
    condition     = var.metrics_sidecar_image == "" || can(regex("(@sha256:[0-9a-f]{64}|^us-docker\\.pkg\\.dev/cloud-ops-agents-artifacts/cloud-run-gmp-sidecar/cloud-run-gmp-sidecar:[0-9]+\\.[0-9]+\\.[0-9]+)$", var.metrics_sidecar_image))
    error_message = "metrics_sidecar_image must be given by digest, or as a full version of Google's own repository."
  }
}

variable "invokers" {
  description = "Members that may call the service, by a fixed label; allUsers leaves the gate to the API keys."
  type        = map(string)
  default     = {}
}

variable "deployers" {
  description = "Members that may deploy revisions and move traffic, by a fixed label."
  type        = map(string)
  default     = {}
}

variable "deletion_protection" {
  description = "Refuse to destroy the service."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels of the service."
  type        = map(string)
  default     = {}
}
