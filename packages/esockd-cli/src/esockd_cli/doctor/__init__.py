"""`esockd doctor`: what is wrong or doubtful about the machine, running instances, and configurations."""
