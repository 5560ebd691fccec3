"""Who may write where: numbered entries by compare-and-swap, leases on them, and one command at a time a folder."""
