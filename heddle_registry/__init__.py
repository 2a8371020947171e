"""Which coding agents are in flight, who may write where, and why."""
