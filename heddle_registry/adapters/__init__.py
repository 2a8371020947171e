"""What the ports are here: folders, locks, processes, the index, transcripts."""
