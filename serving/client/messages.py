"""TensorFlow Serving's messages for a process that has no TensorFlow.

Only the fields that a client reads or writes are listed; the others pass unread.
"""

from serving.wire.descriptors import Messages, make_pool, message_class

_TENSORS: Messages = {
    "Dim": [("size", 1, "int64")],
    "TensorShapeProto": [("dim", 2, "repeated tensorflow.Dim"), ("unknown_rank", 3, "bool")],
    "TensorProto": [
        ("dtype", 1, "int32"),  # DataType
        ("tensor_shape", 2, "tensorflow.TensorShapeProto"),
        ("tensor_content", 4, "bytes"),
        ("float_val", 5, "repeated float"),
        ("double_val", 6, "repeated double"),
        ("int_val", 7, "repeated int32"),
        ("string_val", 8, "repeated bytes"),
        ("scomplex_val", 9, "repeated float"),
        ("int64_val", 10, "repeated int64"),
        ("bool_val", 11, "repeated bool"),
        ("dcomplex_val", 12, "repeated double"),
        ("half_val", 13, "repeated int32"),
        ("uint32_val", 16, "repeated uint32"),
        ("uint64_val", 17, "repeated uint64"),
    ],
    "TensorInfo": [
        ("name", 1, "string"),
        ("dtype", 2, "int32"),
        ("tensor_shape", 3, "tensorflow.TensorShapeProto"),
    ],
    "SignatureDef": [
        ("inputs", 1, "map tensorflow.TensorInfo"),
        ("outputs", 2, "map tensorflow.TensorInfo"),
        ("method_name", 3, "string"),
    ],
    "BytesList": [("value", 1, "repeated bytes")],
    "FloatList": [("value", 1, "repeated float")],
    "Int64List": [("value", 1, "repeated int64")],
    "Feature": [
        ("bytes_list", 1, "tensorflow.BytesList"),
        ("float_list", 2, "tensorflow.FloatList"),
        ("int64_list", 3, "tensorflow.Int64List"),
    ],
    "Features": [("feature", 1, "map tensorflow.Feature")],
    "Example": [("features", 1, "tensorflow.Features")],
    "StatusProto": [("error_code", 1, "int32"), ("error_message", 2, "string")],
}
_APIS: Messages = {
    "ModelSpec": [
        ("name", 1, "string"),
        ("version", 2, "google.protobuf.Int64Value"),
        ("signature_name", 3, "string"),
        ("version_label", 4, "string"),
    ],
    "PredictRequest": [
        ("model_spec", 1, "tensorflow.serving.ModelSpec"),
        ("inputs", 2, "map tensorflow.TensorProto"),
        ("output_filter", 3, "repeated string"),
    ],
    "PredictResponse": [
        ("outputs", 1, "map tensorflow.TensorProto"),
        ("model_spec", 2, "tensorflow.serving.ModelSpec"),
    ],
    "ExampleList": [("examples", 1, "repeated tensorflow.Example")],
    "ExampleListWithContext": [("examples", 1, "repeated tensorflow.Example"), ("context", 2, "tensorflow.Example")],
    "Input": [
        ("example_list", 1, "tensorflow.serving.ExampleList"),
        ("example_list_with_context", 2, "tensorflow.serving.ExampleListWithContext"),
    ],
    "Class": [("label", 1, "string"), ("score", 2, "float")],
    "Classifications": [("classes", 1, "repeated tensorflow.serving.Class")],
    "ClassificationResult": [("classifications", 1, "repeated tensorflow.serving.Classifications")],
    "ClassificationRequest": [
        ("model_spec", 1, "tensorflow.serving.ModelSpec"),
        ("input", 2, "tensorflow.serving.Input"),
    ],
    "ClassificationResponse": [("result", 1, "tensorflow.serving.ClassificationResult")],
    "Regression": [("value", 1, "float")],
    "RegressionResult": [("regressions", 1, "repeated tensorflow.serving.Regression")],
    "RegressionRequest": [("model_spec", 1, "tensorflow.serving.ModelSpec"), ("input", 2, "tensorflow.serving.Input")],
    "RegressionResponse": [("result", 1, "tensorflow.serving.RegressionResult")],
    "SignatureDefMap": [("signature_def", 1, "map tensorflow.SignatureDef")],
    "GetModelMetadataRequest": [
        ("model_spec", 1, "tensorflow.serving.ModelSpec"),
        ("metadata_field", 2, "repeated string"),
    ],
    "GetModelMetadataResponse": [("metadata", 2, "map google.protobuf.Any")],
    "ModelVersionStatus": [("version", 1, "int64"), ("state", 2, "int32"), ("status", 3, "tensorflow.StatusProto")],
    "GetModelStatusRequest": [("model_spec", 1, "tensorflow.serving.ModelSpec")],
    "GetModelStatusResponse": [("model_version_status", 1, "repeated tensorflow.serving.ModelVersionStatus")],
}
_POOL = make_pool({"tensorflow.proto": ("tensorflow", _TENSORS), "apis.proto": ("tensorflow.serving", _APIS)})

TensorProto = message_class(_POOL, "tensorflow.TensorProto")
PredictRequest = message_class(_POOL, "tensorflow.serving.PredictRequest")
PredictResponse = message_class(_POOL, "tensorflow.serving.PredictResponse")
ClassificationRequest = message_class(_POOL, "tensorflow.serving.ClassificationRequest")
ClassificationResponse = message_class(_POOL, "tensorflow.serving.ClassificationResponse")
RegressionRequest = message_class(_POOL, "tensorflow.serving.RegressionRequest")
RegressionResponse = message_class(_POOL, "tensorflow.serving.RegressionResponse")
SignatureDefMap = message_class(_POOL, "tensorflow.serving.SignatureDefMap")
GetModelMetadataRequest = message_class(_POOL, "tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = message_class(_POOL, "tensorflow.serving.GetModelMetadataResponse")
GetModelStatusRequest = message_class(_POOL, "tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = message_class(_POOL, "tensorflow.serving.GetModelStatusResponse")
