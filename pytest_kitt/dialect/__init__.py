"""The wire protocols of inference servers, one file each."""
