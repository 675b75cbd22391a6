"""The engines that workflows are measured on, each a process that runs what it is told on standard input."""
