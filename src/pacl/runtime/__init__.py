"""What any program needs and no part of the method: files, processes, interrupts, diagnosis."""
