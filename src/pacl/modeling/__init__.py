"""The method: compatibility function, loss, embedder, and the frozen towers below them."""
