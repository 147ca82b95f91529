"""Level 6: workspaces with resumable stages, claims and their proof, cost, reports."""
