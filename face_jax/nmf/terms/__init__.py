"""What an objective with further terms adds: its problem, its loop and its moves, its codes, and the paper's Adam."""
