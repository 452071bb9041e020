"""What a shell offers when TAB is pressed: what was typed is read here, and what it may become is found here."""
