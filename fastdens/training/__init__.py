"""Networks, data sets and the recipe by which networks are trained; ``runs`` trains many of them in processes."""
