"""The wirings: what runs, named once and in order.  Faust stands here and nowhere else."""
