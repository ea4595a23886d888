"""Network to quantum: any trained `torch.nn.Module` read as a quantum system. Each package here names its own parts."""
