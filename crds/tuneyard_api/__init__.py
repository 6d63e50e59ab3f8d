"""The API of Tuneyard: Study, Trial and GpuQueue as pydantic models, the one source of the CRDs."""
