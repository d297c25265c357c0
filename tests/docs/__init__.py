"""README, documentation and examples: code runs, links resolve, figures come from files."""
