"""What people look at: reports and plots. Nothing here is imported by the rooms below."""
