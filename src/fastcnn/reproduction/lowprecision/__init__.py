"""Low precision: binary nets and nets of few bits, trained, and as fast and small as they are said to be."""
