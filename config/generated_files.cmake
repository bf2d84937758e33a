# SPDX-License-Identifier: Apache-2.0
# Fails when docs/configuration.md or etc/narwhal.ini is not what the table of settings makes.
# Run by ctest: cmake -DTOOL=… -DSOURCE_DIR=… -DWORK_DIR=… -P generated_files.cmake
function(compare what file)
    set(fresh "${WORK_DIR}/generated.${what}")
    execute_process(COMMAND "${TOOL}" ${what} OUTPUT_FILE "${fresh}" RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
        message(FATAL_ERROR "${TOOL} ${what} failed: ${status}")
    endif()
    execute_process(COMMAND "${CMAKE_COMMAND}" -E compare_files "${fresh}" "${SOURCE_DIR}/${file}"
                    RESULT_VARIABLE status)
    if(NOT status EQUAL 0)
        message(SEND_ERROR "${file} is stale; run: cmake --build build/dev --target docs")
    endif()
endfunction()

compare(markdown docs/configuration.md)
compare(ini etc/narwhal.ini)
