"""The operator: study state, the pure planner, and the three worlds it acts on."""
