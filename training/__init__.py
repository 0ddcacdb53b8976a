"""A tf.distribute trainer over tensorflow-datasets: images in, a published model out."""
