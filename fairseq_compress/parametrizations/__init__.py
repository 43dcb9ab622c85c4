"""Weight to weight of the same shape: what every reader of a module's ``weight`` sees (torch.nn.utils.parametrize)."""
