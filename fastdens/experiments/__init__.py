"""What an analysis starts from: images, networks, training, and folders of trained networks that can be resumed."""
