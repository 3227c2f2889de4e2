"""Says by itself what its tensors are, then adds its two inputs."""
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        for name in ("A", "B"):
            config.add_input({"name": name, "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "SUM", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        return config

    def execute(self, requests):
        def of(request, name):
            return pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        return [pb_utils.InferenceResponse(
            [pb_utils.Tensor("SUM", of(r, "A") + of(r, "B"))]) for r in requests]
