variable "project" {
  description = "Project id or number that the budget watches."
  type        = string
}

variable "name" {
  description = "Short name of the deployment."
  type        = string
}

variable "billing_account" {
  description = "Billing account, XXXXXX-XXXXXX-XXXXXX."
  type        = string

  validation {
    condition     = can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "billing_account must look like 012345-6789AB-CDEF01."
  }
}

variable "monthly_amount" {
  description = "Budget of a month, in whole units of the currency."
  type        = number

  validation {
    condition     = var.monthly_amount > 0 && floor(var.monthly_amount) == var.monthly_amount
    error_message = "monthly_amount must be a whole number above 0."
  }
}

variable "currency" {
  description = "Currency of the billing account; null: whatever that is. Google refuses another one."
  type        = string
  default     = null
}

variable "notification_channels" {
  description = "Monitoring channels that are told."
  type        = list(string)
  default     = []
}
