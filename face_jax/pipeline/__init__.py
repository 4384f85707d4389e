"""From a model and photographs to an explanation, stage by stage."""
