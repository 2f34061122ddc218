"""Where subjects come from: uploads and sources, the step `import` that reads them, and refreshing what is there."""
