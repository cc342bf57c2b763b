"""Made from ``benches/proto`` by the command below; never edited.

``python -m grpc_tools.protoc -Ibenches/proto --python_out=benches/_generated
--pyi_out=benches/_generated bench/echo.proto``
"""
