"""An engine on replicas: vLLM servers elsewhere that enforce budgets themselves."""
