"""What leaves this process: ONNX graphs, the hub, a browser demo, a cluster."""
