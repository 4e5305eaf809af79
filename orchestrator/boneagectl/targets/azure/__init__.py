"""What is known of Azure without asking it: the infrastructure template and the prices."""
