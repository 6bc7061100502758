"""What a person writes: YAML -> pydantic -> core types, with problems that name file, line and a way out."""
