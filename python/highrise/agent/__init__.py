"""Floor 7, agent. In: people, editors, tools. Out: answers, completions, executed actions."""
